"""The checks of the gate, by what they look at; `steps/gate.py` has the table and the decision."""
