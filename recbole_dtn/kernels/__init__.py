"""Hand-written kernels, each with a plain implementation in torch operations that gives the same result.

A function here takes tensors and ``nn.Linear`` maps, and returns what its docstring's formula says. Inside it either
evaluates the formula with torch's operations (plain), or runs an autograd Function with a backward pass of its own
(fused). :func:`recbole_dtn.kernels.choice.by_hand` chooses; the setting ``fused: false`` makes all of them plain.
"""
