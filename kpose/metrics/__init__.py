"""PCP, PDJ, PCK and OKS: as Keras metrics, as tables, with bootstrap intervals."""
