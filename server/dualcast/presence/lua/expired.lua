-- Reply: nodes whose lease is over
return expired()
