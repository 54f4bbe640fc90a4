"""Numbers and parameters of an MLflow run."""


class Metric:
    def __init__(self, key, value, timestamp, step):
        self.key, self.value = key, value
        assert isinstance(value, float)
        assert (type(timestamp), step) == (int, 0)
        assert timestamp > 1.7e12, "milliseconds"


class Param:
    def __init__(self, key, value):
        self.key, self.value = key, value
