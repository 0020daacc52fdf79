"""Losses by name. A loss of your own: one file and one line here, or name it `my_package.my_module:MyLoss`.

A loss is constructed with its `Config` and called as `loss(h_BLD, targets_BL, item_vectors, batch)`; it gives a float32
scalar. Targets that are PAD do not count. What it may have besides:

- `fit(train: Sequences)`: it is shown the training histories before the first step.
- `separable = True`: it is a mean over positions of which none looks at another's, so that a batch can come in parts.
- `shards = True`: it takes the part of an item table that one of several processes holds (`ShardedItemVectors`).
- `views(batch) -> tuple[Batch, ...]`: histories, made of those the model is shown, that the model reads as well. What
  it says after the last event of each (B, D) follows in the call, a tensor for each view: `loss(..., batch, *states)`.
- `learn_from(models: Sequence[SequenceModel])`: it is given the trained models of the runs that its setting `teachers`
  names, before the first step.

Its Config may have `misfit(model, bidirectional) -> str | None`: why it does not suit a model of that configuration,
and what to do instead; said before anything is trained.

A step is recorded as a CUDA graph: nothing in a loss may wait for the device (`.item()`, boolean indexing, a branch on
a tensor), and what it draws comes from torch's global generator of the device.
"""

LOSSES: dict[str, str] = {
    "bce": "seqrec.losses.bce:BCELoss",
    "bpr": "seqrec.losses.bpr:BPRLoss",
    "bpr_max": "seqrec.losses.bpr:BPRMaxLoss",
    "contrastive": "seqrec.losses.contrastive:ContrastiveLoss",
    "distillation": "seqrec.losses.distillation:DistillationLoss",
    "gbce": "seqrec.losses.bce:GBCELoss",
    "sampled_softmax": "seqrec.losses.sampled_softmax:SampledSoftmaxLoss",
    "softmax": "seqrec.losses.softmax:SoftmaxLoss",
}
