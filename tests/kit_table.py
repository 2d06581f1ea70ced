"""What the conformance kit finds at our own plugins, and at those that lie: docs/kit.md shows it, test_kit_ours.py and test_kit_liars.py hold it true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Found:
    """One class of tests of a plugin. `on`: what it is tried on, in words · `holds`: how many clauses hold · `off`: clause -> why it is declared off."""

    on: str
    holds: int
    off: Mapping[str, str] = field(default_factory=dict)


# plugin -> its classes of tests
OURS: dict[str, dict[str, Found]] = {
    "nano": {
        "TestNano": Found("a dev ledger, over HTTP and websocket", 42),
        "TestNanoWithSeveralSpendingAccounts": Found("the same, spending from three accounts", 42),
    },
    "cashu": {
        "TestCashu": Found(
            "a real mint",
            40,
            {
                "W-05": "a token is worth nothing until it is swapped, then it is final",
                "W-16": "a token comes with its submission; nobody else could tell of it",
            },
        )
    },
    "embedded": {"TestEmbedded": Found("a file", 37)},
    "relay": {"TestRelay": Found("a relay of its own, on a file, over HTTP", 37)},
    "process": {"TestProcess": Found("this machine", 22)},
    "bubblewrap": {"TestBubblewrap": Found("this machine", 22)},
    "container": {"TestContainer": Found("a container engine, in an image of this machine's programs", 22)},
}

# class -> the clause it was made to break, and those that cannot hold either then
LIARS: dict[str, tuple[str, str]] = {
    "wallets::TestPaysTwiceOnRetry": ("W-19", "W-20 W-41 W-51 W-53"),
    "wallets::TestForgetsKeysAfterRestart": ("W-20", "W-41"),
    "wallets::TestReportsUnconfirmedAsPaid": ("W-05", ""),
    "wallets::TestReusesAnInvoice": ("W-01", "W-12 W-21 W-24 W-41 W-42 W-44 W-50 W-51 W-52 W-53"),
    "wallets::TestForgetsInvoicesAfterRestart": ("W-02", "W-42"),
    "wallets::TestRoundsAmounts": ("W-45", ""),
    "wallets::TestAcceptsAnotherNetwork": ("W-25", ""),
    "wallets::TestAcceptsAnotherUnit": ("W-25", ""),
    "wallets::TestRefundsTwice": ("W-27", "W-43"),
    "wallets::TestCannotRefundWhatItCollected": ("W-28", ""),
    "wallets::TestSaysRefusedWhenItIsUnknown": ("W-50", "W-52"),
    "wallets::TestSaysUnpaidWhenItCannotLook": ("W-50", "W-51 W-52 W-53"),
    "wallets::TestPublishesBeforeItStores": ("W-41", "W-19"),
    "wallets::TestBelievesProofs": ("W-13", ""),
    "wallets::TestCountsOnePaymentForTwoJobs": ("W-12", ""),
    "wallets::TestKeepsQuietAboutASurplus": ("W-08", "W-09 W-44"),
    "wallets::TestTakesLateMoneyForTimely": ("W-10", ""),
    "wallets::TestDropsMoneyOfForgottenInvoices": ("W-15", ""),
    "wallets::TestReportsASweepAsTheEnd": ("W-14", ""),
    "wallets::TestTakesAKeyForAnotherInvoice": ("W-24", ""),
    "wallets::TestPaysAnyAddress": ("W-26", "W-30"),
    "wallets::TestLeaksItsSecretInItsRepr": ("W-46", ""),
    "wallets::TestLeaksItsSecretInAnError": ("W-46", ""),
    "markets::TestLosesAChange": ("M-35", "M-11"),
    "markets::TestRepeatsACursor": ("M-33", "M-35"),
    "markets::TestLetsTwoLocksWin": ("M-27", "M-25 M-26"),
    "markets::TestTakesAStaleFence": ("M-25", ""),
    "markets::TestCancelsAfterPayment": ("M-01", "M-03"),
    "markets::TestAltersADocument": ("M-12", ""),
    "markets::TestShowsJobsToStrangers": ("M-02", ""),
    "markets::TestTakesForgedOffers": ("M-13", ""),
    "markets::TestChangesAPrice": ("M-04", ""),
    "markets::TestForgetsRequests": ("M-11", "M-18"),
    "backends::TestStartsTwice": ("B-03", "B-04 B-05 B-19"),
    "backends::TestLeaksTheEnvironment": ("B-16", ""),
    "backends::TestIgnoresTheTimeLimit": ("B-09", ""),
    "backends::TestIgnoresTheOutputLimit": ("B-10", ""),
    "backends::TestIgnoresTheMemoryLimit": ("B-18", ""),
    "backends::TestFollowsALink": ("B-17", ""),
    "backends::TestForgetsAfterARestart": ("B-06", "B-04 B-05 B-19"),
    "backends::TestChangesAResult": ("B-02", "B-19"),
    "backends::TestRunsAnythingWithoutIsolation": ("B-15", ""),
    "backends::TestListsOthersJobs": ("B-14", ""),
    "backends::TestStopsNothing": ("B-11", "B-05 B-13"),
    "backends::TestThrowsAResultAwayOnStop": ("B-12", ""),
    "backends::TestRemovesWhatRuns": ("B-13", ""),
    "backends::TestCallsAFailureFinished": ("B-07", ""),
    "skills::TestHidesATool": ("S-03", ""),
    "skills::TestIgnoresUnknownArguments": ("S-07", ""),
    "skills::TestSaysNothingOfATool": ("S-04", ""),
    "skills::TestDoesNotSayWhatItAnswers": ("S-05", "S-06"),
}
HONEST = {"wallets::TestHonest", "wallets::TestKeepsItsSecret", "markets::TestHonest", "backends::TestHonest", "skills::TestHonest"}
