"""From a model file to a regime estimate: HMM, Viterbi scores, manifests, registry, detector.

Fitting and judging models is the pipeline's work (`bot4_pipelines.training`). What a promoted
file says, whether it may be trusted, and what it names a candle, is decided here.
"""
