"""Losses by name. A loss of your own: one file and one line here, or name it `my_package.my_module:MyLoss`.

One that has a method `fit(train: Sequences)` is shown the training histories before the first step.
One that is `separable` is a mean over positions of which none looks at another's, so that a batch can come in parts.
"""

LOSSES: dict[str, str] = {
    "softmax": "seqrec.losses.softmax:SoftmaxLoss",
    "sampled_softmax": "seqrec.losses.sampled_softmax:SampledSoftmaxLoss",
}
