"""Models by name. A model of your own: one file and one line here, or name it `my_package.my_module:MyModel`."""

MODELS: dict[str, str] = {
    "popularity": "seqrec.models.popularity:Popularity",
    "recent_popularity": "seqrec.models.recent_popularity:RecentPopularity",
    "markov": "seqrec.models.markov:Markov",
    "sasrec": "seqrec.models.sasrec:SASRec",
    "xlstm": "seqrec.models.xlstm:XLSTM",
}
