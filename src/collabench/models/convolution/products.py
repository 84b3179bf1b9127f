from torch import nn
class PortableLinear(nn.Linear): pass
