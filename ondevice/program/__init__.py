"""From a trained model to a program: packing, quantizing, lowering, parity."""
