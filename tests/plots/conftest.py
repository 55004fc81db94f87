import matplotlib

matplotlib.use("Agg")  # no window
