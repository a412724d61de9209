"""Recorded references: what Keras computed once, judged against later where there is no TensorFlow.

`form` says what a golden is, `file` how it lies in a file, `record` makes one and `replay` judges with it; `training`
adds first steps of an optimizer, `manage` looks after a folder of goldens, and `drift` compares two of them.
"""
