"""Drift as people look at it: one self-contained HTML page, of the admin API's answers. See `render.render`.

text, effects, words          numbers, times, measures and verdicts as a reader has them
axis, counts                  where values lie on a plot, and how many rows lie there
svg, histogram, paired_bars, timeline, ranking      the plots: pure functions of the above
cards, page, render           what stands on the page, and the page
"""
