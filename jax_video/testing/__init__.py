"""What is done with a trained network: its test, features, CoST's views, and scores of several networks together."""
