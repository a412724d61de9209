"""What an optimizer keeps from step to step, ported where the next steps can be the same."""
