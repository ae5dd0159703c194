"""A model's route as operators write it: rules, splits by weight, shadows. Who decides by it is `gateway.routing`."""
