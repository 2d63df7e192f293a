"""How each checkpoint of the zoo was trained: `python -m training.NAME`, one command each."""
