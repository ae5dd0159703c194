"""The durable desired state and its audit: `contract` says what a store promises, `sql` keeps it in a database."""
