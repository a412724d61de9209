"""Is this hand-written optimizer Keras's? `check.check_training` is the way in."""
