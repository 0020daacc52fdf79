"""Losses by name. A loss of your own: one file and one line here, or name it `my_package.my_module:MyLoss`."""

LOSSES: dict[str, str] = {
    "softmax": "seqrec.losses.softmax:SoftmaxLoss",
}
