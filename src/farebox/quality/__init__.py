"""Quality: whether an answer will do, or a stronger model is asked (`[policies.NAME.escalation]`). Pure.

    rules.py      what a policy wants looked at, checked
    check.py      an answer → what is wrong with it
    refusals.py   words that decline, in five languages
    rating.py     the second question: how sure are you?
    schema.py     whether JSON is what its schema says
"""
