"""Weights on the move: layer name -> named arrays, from and to files, frameworks and layouts."""
