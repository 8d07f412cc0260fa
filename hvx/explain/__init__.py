"""The explanation: guided backpropagation, Eqs 1-3, Eqs 9-11."""
