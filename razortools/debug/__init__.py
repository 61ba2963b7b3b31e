"""Looking into an image and operating on it without mounting it. Commands return answers; somebody else shows them."""
