"""Money: what a call costs at its time, who may spend it, and what becomes of what was held for it.

Takes prices and accounts of the store; gives verdicts before a call and settlements after it. Whole
nano-dollars towards the store, exact decimals elsewhere. Knows no HTTP beside the errors that it answers.
"""

from .budgets import Budgets, Hold, Order
from .opening import Money, opened_money
from .price_book import PriceBook
from .settlements import Settlements

__all__ = ["Budgets", "Hold", "Money", "Order", "PriceBook", "Settlements", "opened_money"]
