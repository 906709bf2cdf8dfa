"""What the operator and customers are told and what money comes in: alert channels, webhooks, e-mail, payment services.

Read it in this order: `messages` (what is said), `channels` (to whom), `deliveries` (the queue), `senders` (how), `courier` (the
loop). All of it runs off the way of a call, in the bookkeeper or in a command.
"""
