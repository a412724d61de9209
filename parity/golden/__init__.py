"""Recorded references: what Keras computed once, judged against later where there is no TensorFlow.

`form` says what a golden is, `file` how it lies in a file, `posed` whether its parts fit each other; `record` makes one
and `replay` judges with it; `training` adds first steps of an optimizer, `manage` looks after a folder of goldens.
`drift` compares two of them, in the words of `drifted`, and `matrix` records in several environments to do so.
"""
