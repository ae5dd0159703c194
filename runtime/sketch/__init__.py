"""Mergeable summaries of values, of bounded size: what a worker keeps of everything that it sees.

    exponential   quantiles and counts by value       same bytes, however it is merged
    moments       mean, variance, correlation         Chan's formulas
    distinct      how many different values           same bytes, however it is merged
    frequent      which values are frequent           bound holds, however it is merged
    categories    exact counts of declared values     same bytes, however it is merged
    block         the first three of many features, updated in one call
    rows          a uniform sample of rows           same bytes, however it is merged
    bins          bins that a reference fixes, and any histogram counted in them
    codec         bytes for the store and the wire

State lies in memory that the caller gives, one writer at a time; a reader takes a copy. docs/sketches.md draws it.
"""
