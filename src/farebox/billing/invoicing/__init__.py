"""Months, invoices, reminders, and exports of them."""
