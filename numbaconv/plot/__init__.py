"""Pictures with matplotlib: feature maps, filters, receptive fields, and the charts of a bench file."""

from .charts import ratios, roofline
from .fields import receptive_field
from .figures import save
from .maps import feature_maps, filters

__all__ = ["feature_maps", "filters", "ratios", "receptive_field", "roofline", "save"]
