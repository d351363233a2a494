"""MLflow: nothing outside this folder imports it."""
