"""What a report gives away: membership, label mix, nearest record, audit."""
