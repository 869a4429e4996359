"""What the SDK's calls return: frozen, typed, and able to show itself as text, as a notebook's HTML and as JSON."""
