"""What `seqrec bench` measures: read `measure.py` first."""
