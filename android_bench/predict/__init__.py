"""How long will a network take that was never measured? A prediction from its operations and from measured networks."""
