"""Speed, measured beside baselines: python -m kpose.benchmark."""
