"""What is measured of a model's inputs and outputs: the same summary for training data, live panes and windows.

schema         the features: names, kinds, and where in which tensor they are
of_signature   a schema from a model's graph and its settings
summary        the sketches of all features, in memory that the caller gives
windows        panes of time, merged into sliding windows
"""
