"""The opponents: dense programs that torchao and ExecuTorch make by themselves."""
