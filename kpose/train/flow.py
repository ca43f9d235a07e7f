"""A normalising flow for errors in two dimensions.

RealNVP: Dinh et al., "Density Estimation Using Real NVP", 2017.
"""

import math

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("kpose")
class RealNVP(keras.layers.Layer):
    """Affine coupling layers that map x [..., 2] to a standard normal distribution, in float32.

    Each layer keeps one of the two coordinates and changes the other: z = (x - t) exp(-s), where s
    (bounded by a tanh) and t are small networks of the coordinate that is kept. The layers
    alternate between the two coordinates.

    Args:
        num_layers: number of coupling layers.
        units: of the two hidden layers of each network.
    """

    def __init__(self, num_layers=6, units=64, **kwargs):
        super().__init__(**kwargs, dtype="float32")
        self.layers = num_layers
        self.units = units
        self.scales = [self._network("tanh", f"scale{i}") for i in range(num_layers)]
        self.shifts = [self._network("linear", f"shift{i}") for i in range(num_layers)]

    def build(self, input_shape):
        for network in (*self.scales, *self.shifts):
            network.build((None, 1))
        self.built = True

    def call(self, x):
        return self.log_density(x)

    def log_density(self, x):
        """The natural logarithm of the density at x [..., 2]: [...] float32."""
        z = [x[..., :1], x[..., 1:]]
        log_determinant = 0.0
        for index, (scale, shift) in enumerate(zip(self.scales, self.shifts, strict=True)):
            kept, moved = index % 2, 1 - index % 2
            s, t = self._apply(scale, z[kept]), self._apply(shift, z[kept])
            z[moved] = (z[moved] - t) * ops.exp(-s)
            log_determinant = log_determinant - s
        square = ops.square(z[0]) + ops.square(z[1])
        return (log_determinant - 0.5 * square)[..., 0] - math.log(2 * math.pi)

    def get_config(self):
        config = super().get_config() | {"num_layers": self.layers, "units": self.units}
        config.pop("dtype")
        return config

    def _network(self, activation, name):
        # Small initial weights of the last layer: the initial flow is close to the identity.
        last = layers.Dense(
            1, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), dtype="float32"
        )
        hidden = [layers.Dense(self.units, "leaky_relu", dtype="float32") for _ in range(2)]
        return keras.Sequential([*hidden, last], name=name)

    @staticmethod
    def _apply(network, x):
        flat = network(ops.reshape(x, (-1, 1)))
        return ops.reshape(flat, ops.shape(x))
