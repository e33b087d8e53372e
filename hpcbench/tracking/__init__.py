"""Results handed to the tools where people look at curves: TensorBoard, Weights & Biases, trackio, MLflow."""
