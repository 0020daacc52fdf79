"""Categories of the three editions of Amazon's reviews, as their files are called, and the names made of them.

Kept apart from the reader, so that listing data sets loads nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping

#: McAuley et al. 2015 and He & McAuley 2016; May 1996 to July 2014. The 24 categories that have a 5-core.
_2014 = (
    "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl Cell_Phones_and_Accessories "
    "Clothing_Shoes_and_Jewelry Digital_Music Electronics Grocery_and_Gourmet_Food Health_and_Personal_Care "
    "Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden "
    "Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
)
#: Ni et al. 2019; up to October 2018.
_2018 = (
    "AMAZON_FASHION All_Beauty Appliances Arts_Crafts_and_Sewing Automotive Books CDs_and_Vinyl "
    "Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards "
    "Grocery_and_Gourmet_Food Home_and_Kitchen Industrial_and_Scientific Kindle_Store Luxury_Beauty "
    "Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies "
    "Prime_Pantry Software Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
)
#: Hou et al. 2024; up to September 2023.
_2023 = (
    "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products Beauty_and_Personal_Care "
    "Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards "
    "Grocery_and_Gourmet_Food Handmade_Products Health_and_Household Health_and_Personal_Care Home_and_Kitchen "
    "Industrial_and_Scientific Kindle_Store Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products "
    "Patio_Lawn_and_Garden Pet_Supplies Software Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement "
    "Toys_and_Games Unknown Video_Games"
)
CATEGORIES: Mapping[int, tuple[str, ...]] = {
    2014: tuple(_2014.split()),
    2018: tuple(_2018.split()),
    2023: tuple(_2023.split()),
}
#: What papers call them: Beauty, Sports and Toys are the 5-cores of 2014.
ALIASES: Mapping[str, str] = {
    "amazon-beauty": "amazon-2014-beauty",
    "amazon-sports": "amazon-2014-sports-and-outdoors",
    "amazon-toys": "amazon-2014-toys-and-games",
    "amazon-software": "amazon-2018-software",
}


def data_sets() -> dict[str, tuple[int, str]]:
    """Name of every data set, aliases too -> edition and category."""
    named = {
        f"amazon-{edition}-{category.lower().replace('_', '-')}": (edition, category)
        for edition, categories in CATEGORIES.items()
        for category in categories
    }
    return named | {alias: named[name] for alias, name in ALIASES.items()}


def names() -> dict[str, str]:
    """Entries of `SOURCES`: name -> what loads it."""
    return dict.fromkeys(data_sets(), "seqrec.data.sources.amazon:load")
