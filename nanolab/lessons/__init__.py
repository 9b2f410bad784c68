"""What a notebook needs and is too long for a cell. Nothing imports these but the notebooks."""
