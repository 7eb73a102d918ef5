"""What happened to every block, kept so that nothing but the loss of the disk can undo it."""
