"""What a person looks at while a network is trained: a bar, a picture per epoch, a page per run."""
