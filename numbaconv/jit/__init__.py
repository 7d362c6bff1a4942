"""x"""

from .overloads import OVERLOADED as OVERLOADED
