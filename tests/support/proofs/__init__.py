"""The long proofs: each is one function that does it at any size and gives its figures. Tests run them short, ``scripts/faults`` long."""
