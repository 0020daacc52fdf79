"""One YAML file to the table of a paper: plan the runs, run them, judge them, write it down."""
