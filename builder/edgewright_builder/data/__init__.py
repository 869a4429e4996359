"""Task data: question and answer pairs written by T1 (Self-Instruct), or a file of the user's own."""
