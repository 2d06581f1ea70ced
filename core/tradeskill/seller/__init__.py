"""The seller's flow: check, quote, settle, execute under a fence, deliver. One module a stretch of the way, `worker` drives them."""

from tradeskill.seller.shop import Listing, SellerSettings, Shop, execution_id
from tradeskill.seller.worker import Seller

__all__ = ["Listing", "Seller", "SellerSettings", "Shop", "execution_id"]
