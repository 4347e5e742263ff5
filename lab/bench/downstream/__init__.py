"""What the intent features are worth to those who read them: a ranker, and a search's re-ranking.

    python -m lab.bench.downstream --source ml-1m

Time is cut in two places. The intent model learns from what happened before T1; the ranker and the
re-ranker learn between T1 and T2; all are tested after T2. Nothing that is known only later is used
anywhere, and both sides of a comparison know everything else alike.
"""
