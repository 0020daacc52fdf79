"""Models by name. A model of your own: one file and one line here, or name it `my_package.my_module:MyModel`."""

MODELS: dict[str, str] = {
    "popularity": "seqrec.models.popularity:Popularity",
    "recent_popularity": "seqrec.models.recent_popularity:RecentPopularity",
    "markov": "seqrec.models.markov:Markov",
    "ease": "seqrec.models.ease:EASE",
    "als": "seqrec.models.als:ALS",
    "bpr": "seqrec.models.bpr:BPR",
    "svd": "seqrec.models.svd:SVD",
    "nmf": "seqrec.models.nmf:NMF",
    "pmf": "seqrec.models.pmf:PMF",
    "item_knn": "seqrec.models.item_knn:ItemKNN",
    "user_knn": "seqrec.models.user_knn:UserKNN",
    "content_knn": "seqrec.models.content_knn:ContentKNN",
    "ensemble": "seqrec.models.ensemble:Ensemble",
    "neural_cf": "seqrec.models.neural_cf:NeuralCF",
    "gru4rec": "seqrec.models.gru4rec:GRU4Rec",
    "lstm": "seqrec.models.lstm:LSTM",
    "bert4rec": "seqrec.models.bert4rec:BERT4Rec",
    "sasrec": "seqrec.models.sasrec:SASRec",
    "xlstm": "seqrec.models.xlstm:XLSTM",
}
