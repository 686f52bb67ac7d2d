"""What packages run beyond the network itself, as torch graphs that consumers load."""
