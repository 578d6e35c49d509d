"""MLflow: what is on disk, shown there; docs/mlflow.md says what one sees."""

from bench.mirror.follower import Follower
from bench.mirror.mirror import Mirror
from bench.mirror.server import TrackingError, default_uri

__all__ = ["Follower", "Mirror", "TrackingError", "default_uri"]
